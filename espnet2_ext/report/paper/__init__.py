"""What the two papers publish, row by row, and what is needed to fill each value."""
