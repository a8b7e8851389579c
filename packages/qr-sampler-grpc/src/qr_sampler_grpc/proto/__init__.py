# SPDX-License-Identifier: Apache-2.0
"""The wire contract, and the stubs that protoc generated from it."""
