"""Speed and memory, as ratios measured in one process. Run by hand, never as tests."""
