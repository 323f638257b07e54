"""Runs on the device: sessions that execute a bundle, and the trainer that drives them."""
