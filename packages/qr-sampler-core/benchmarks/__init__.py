# SPDX-License-Identifier: Apache-2.0
"""What a token costs a host beside the selection of the token and its source of entropy."""
