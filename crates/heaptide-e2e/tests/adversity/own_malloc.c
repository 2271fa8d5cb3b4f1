/* A library that brings its own malloc, which does not know anybody else's blocks. */
#include <stddef.h>

static char arena[1 << 16];
static size_t used;
static int freed;

void *malloc(size_t size) { void *block = arena + used; used += (size + 15) & ~(size_t)15; return block; }
void free(void *block) { if ((char *)block >= arena && (char *)block < arena + sizeof arena) freed++; }
char *own_copy(const char *text) { char *copy = malloc(64); size_t i = 0; do copy[i] = text[i]; while (text[i++]); return copy; }
int own_freed(void) { return freed; }
