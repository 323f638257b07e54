"""Sparse fine-tuning on edge devices within a memory and an energy budget."""
