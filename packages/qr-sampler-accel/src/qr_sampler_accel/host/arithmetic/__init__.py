# SPDX-License-Identifier: Apache-2.0
"""What all compiled loops calculate with: masses, products, moments, and the compiler itself."""
