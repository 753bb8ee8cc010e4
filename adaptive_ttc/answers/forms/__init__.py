"""What answers of mathematics say, read by this package alone: numbers, expressions, lists, intervals, units, words."""
