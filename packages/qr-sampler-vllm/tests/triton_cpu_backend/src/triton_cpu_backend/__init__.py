# SPDX-License-Identifier: Apache-2.0
"""A Triton backend named ``cpu`` that exists only so that the interpreter may run."""
