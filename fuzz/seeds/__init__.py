# SPDX-License-Identifier: BSD-3-Clause
"""What the harnesses start from, by what they are for: a function for each harness, which returns {name: input}."""
