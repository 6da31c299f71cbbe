"""The ground: errors, progress, processes, paths, signals. Every room may use it."""
