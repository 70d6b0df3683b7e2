"""Output that grows part by part, so that a run can be killed at any moment and go on from its last part."""
