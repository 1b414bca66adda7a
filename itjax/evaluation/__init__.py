"""Quantitative evaluation of generated videos."""
