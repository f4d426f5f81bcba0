"""What is near a vector, among the rows that a request allows."""
