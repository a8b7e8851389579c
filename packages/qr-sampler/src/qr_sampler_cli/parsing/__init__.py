# SPDX-License-Identifier: Apache-2.0
"""How commands take options that Typer has no form for."""
