# SPDX-License-Identifier: Apache-2.0
"""The passes over the rows of a batch as Triton kernels."""
