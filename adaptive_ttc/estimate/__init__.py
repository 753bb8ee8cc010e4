"""What a calibration knows: table, difficulty classifier, gain model, and how they are read from files."""
