"""Schedules and samplers, once for everything that denoises."""
