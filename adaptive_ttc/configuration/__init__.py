"""What is said before anything runs: recipes, and how a pair of models is loaded."""
