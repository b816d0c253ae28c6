"""The environments that ship. A user's own is one class with `reset`, `step` and `outcome`."""
