"""How fast a model embeds a library on this machine, and where the time goes."""
