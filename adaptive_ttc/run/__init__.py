"""One problem, or many from one budget, from request to solution."""
