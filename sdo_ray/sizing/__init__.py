"""What a run needs of memory and arithmetic, before anything is paid for: true sizes, on the meta device."""
