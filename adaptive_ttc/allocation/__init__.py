"""Where the next units of a budget go: pure arithmetic."""
