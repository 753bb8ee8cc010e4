"""Answer spaces: what an answer is, where it stands in a solution, and which answers are equal."""
