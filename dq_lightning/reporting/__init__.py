"""Reports built from run directories alone; importable without torch."""
