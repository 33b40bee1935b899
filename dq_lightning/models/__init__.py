"""Models: families, teachers, and students built from their layers."""
