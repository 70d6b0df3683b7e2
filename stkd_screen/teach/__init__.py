"""Everything that trains: tables of labelled molecules, the training loop, evaluation."""
