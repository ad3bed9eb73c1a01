"""Values computed from runs and changes: arrays or frames in, values out."""
