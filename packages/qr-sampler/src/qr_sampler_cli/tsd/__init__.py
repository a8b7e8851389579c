# SPDX-License-Identifier: Apache-2.0
"""What ``qr-sampler tsd`` needs beside its options: sampling units, teachers, training, tables."""
