"""What Linux offers to build containers from: one facility a module, each usable alone."""
