// SPDX-License-Identifier: BSD-3-Clause
// Ways to copy between a disk in memory and a guest's buffers: what libc has, and what the processor offers beside it. A way's turn is so
// many copies between random places; turns of all ways follow one another, and medians over the rounds are printed, in bytes for each ns.
// "read" copies from a large disk into few buffers, which the guest looks at afterwards (that is timed with it, for who copies past
// the caches leaves the guest to fetch it); "write" the other way round. With --quick it only shows that it works.
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { BUFFERS = 32, MOST_ROUNDS = 101, MOST_BYTES = 1 << 20 };

static uint64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

// --- ways ---

static void by_memcpy(void *to, const void *from, size_t size)
{
    memcpy(to, from, size);
}

#if defined(__x86_64__)
static void by_rep_movsb(void *to, const void *from, size_t size)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
}

// Past the caches. Sizes and addresses here are multiples of 64.
static void by_streaming(void *to, const void *from, size_t size)
{
    __m128i *out = to;
    const __m128i *in = from;

    for (size_t i = 0; i < size / sizeof *out; i += 4) {
        __m128i a = _mm_loadu_si128(in + i), b = _mm_loadu_si128(in + i + 1);
        __m128i c = _mm_loadu_si128(in + i + 2), d = _mm_loadu_si128(in + i + 3);
        _mm_stream_si128(out + i, a);
        _mm_stream_si128(out + i + 1, b);
        _mm_stream_si128(out + i + 2, c);
        _mm_stream_si128(out + i + 3, d);
    }
    _mm_sfence();
}
#endif

static const struct {
    const char *name;
    void (*copy)(void *to, const void *from, size_t size);
} ways[] = {
    {"memcpy", by_memcpy},
#if defined(__x86_64__)
    {"rep_movsb", by_rep_movsb},
    {"streaming", by_streaming},
#endif
};

enum { WAYS = sizeof ways / sizeof ways[0] };

// --- measuring ---

struct field {
    uint8_t *disk;
    uint64_t disk_bytes;
    uint8_t *buffers;
    uint64_t random;
    uint64_t seen; // so that nothing is left out
};

static uint64_t place(struct field *field, size_t size)
{
    field->random = field->random * UINT64_C(6364136223846793005) + 1442695040888963407;
    return (field->random >> 20) % (field->disk_bytes / size) * size;
}

static void look_at(struct field *field, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i += 64)
        field->seen += bytes[i];
}

// Bytes for each ns.
static double turn(struct field *field, unsigned way, bool reads, size_t size, unsigned copies)
{
    uint64_t began = now();

    for (unsigned i = 0; i < copies; i++) {
        uint8_t *buffer = field->buffers + (size_t)(i % BUFFERS) * size, *disk = field->disk + place(field, size);
        if (reads)
            ways[way].copy(buffer, disk, size);
        else
            ways[way].copy(disk, buffer, size);
        if (reads)
            look_at(field, buffer, size);
    }
    return (double)size * copies / (double)(now() - began);
}

static int compare(const void *a, const void *b)
{
    const double *left = a, *right = b;

    return (*left > *right) - (*left < *right);
}

static void measure(struct field *field, bool reads, size_t size, unsigned rounds, unsigned copies)
{
    static double took[WAYS][MOST_ROUNDS];

    for (unsigned round = 0; round < rounds; round++)
        for (unsigned i = 0; i < WAYS; i++) {
            unsigned way = round % 2 ? WAYS - 1 - i : i;
            took[way][round] = turn(field, way, reads, size, copies);
        }
    for (unsigned way = 0; way < WAYS; way++) {
        qsort(took[way], rounds, sizeof(double), compare);
        printf("copy %s %zu %s %.2f\n", reads ? "read" : "write", size, ways[way].name, took[way][rounds / 2]);
    }
}

static void check_ways(struct field *field)
{
    for (unsigned way = 0; way < WAYS; way++) {
        memset(field->buffers, 0, 4096);
        ways[way].copy(field->buffers, field->disk, 4096);
        if (memcmp(field->buffers, field->disk, 4096) != 0) {
            fprintf(stderr, "copies: %s copies wrongly\n", ways[way].name);
            exit(1);
        }
    }
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {512, 4096, 16384, 131072, MOST_BYTES};
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    struct field field = {.disk_bytes = quick ? 16 << 20 : 512 << 20, .random = 1};

    field.disk = mmap(NULL, field.disk_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    field.buffers = mmap(NULL, (size_t)BUFFERS * MOST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (field.disk == MAP_FAILED || field.buffers == MAP_FAILED) {
        fprintf(stderr, "copies: no memory\n");
        return 1;
    }
    for (uint64_t i = 0; i < field.disk_bytes; i += 64)
        field.disk[i] = (uint8_t)(i >> 6 | 1);
    memset(field.buffers, 1, (size_t)BUFFERS * MOST_BYTES);
    check_ways(&field);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned reads = 0; reads < 2; reads++)
            measure(&field, reads, sizes[i], quick ? 2 : 15, (unsigned)((quick ? 1 << 20 : 32 << 20) / sizes[i]));
    return field.seen == 0;
}
