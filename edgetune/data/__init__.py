"""Data a user brings: read from npz, csv, image folders or a factory, named, checked."""
