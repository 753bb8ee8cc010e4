"""What people see beside results: progress, and the HTML that notebooks show."""
