"""What readers of files share: types of fields, and errors that name a damaged file."""
