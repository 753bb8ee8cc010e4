"""Shows what a calibration found: tables, figures, pages."""
