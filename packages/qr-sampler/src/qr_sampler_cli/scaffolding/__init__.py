# SPDX-License-Identifier: Apache-2.0
"""New packages from templates: what they are called, and how their files are made.

- :mod:`qr_sampler_cli.scaffolding.kinds`: what there are templates of.
- :mod:`qr_sampler_cli.scaffolding.names`: every name in a package, from the one that is chosen.
- :mod:`qr_sampler_cli.scaffolding.filling`: fills the templates in, by Copier.
"""
