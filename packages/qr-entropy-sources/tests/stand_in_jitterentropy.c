/* SPDX-License-Identifier: Apache-2.0
 *
 * A library with the functions of jitterentropy(3) that a test can make fail. Its bytes are those of
 * SplitMix64 (Steele, Lea and Flood 2014): not random, but never twice the same.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

struct rand_data {
	uint64_t state;
	int failed;
};

static uint64_t next_state = 1;
static long generated, collectors, inits;
static int init_code, read_code, no_memory;
static unsigned int version = 3040100, last_osr, last_flags;

/* What the test sets and asks for. */
void stand_in_fail(int init, int read, int memory)
{
	init_code = init;
	read_code = read;
	no_memory = memory;
}
void stand_in_version(unsigned int number) { version = number; }
long stand_in_generated(void) { return generated; }
long stand_in_collectors(void) { return collectors; }
long stand_in_inits(void) { return inits; }
unsigned int stand_in_osr(void) { return last_osr; }
unsigned int stand_in_flags(void) { return last_flags; }

unsigned int jent_version(void) { return version; }

int jent_entropy_init_ex(unsigned int osr, unsigned int flags)
{
	inits++;
	last_osr = osr;
	last_flags = flags;
	return init_code;
}

struct rand_data *jent_entropy_collector_alloc(unsigned int osr, unsigned int flags)
{
	struct rand_data *collector;

	if (no_memory || osr != last_osr || flags != last_flags)
		return NULL;
	collector = calloc(1, sizeof(*collector));
	collector->state = next_state++ << 40;
	collectors++;
	return collector;
}

void jent_entropy_collector_free(struct rand_data *collector)
{
	collectors--;
	free(collector);
}

ssize_t jent_read_entropy(struct rand_data *collector, char *data, size_t len)
{
	size_t i;

	if (!collector)
		return -1;
	/* A collector stays in its error state. */
	if (read_code)
		collector->failed = read_code;
	if (collector->failed)
		return collector->failed;
	for (i = 0; i < len; i++) {
		uint64_t word = (collector->state += 0x9e3779b97f4a7c15ULL);

		word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9ULL;
		word = (word ^ (word >> 27)) * 0x94d049bb133111ebULL;
		data[i] = (char)((word ^ (word >> 31)) >> 24);
	}
	generated += (long)len;
	return (ssize_t)len;
}
