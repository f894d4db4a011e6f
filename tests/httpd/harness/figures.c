/* Where in a session file the counts of look-ups stand, for figures.py. */
#include <stddef.h>
#include <stdio.h>

#include "store_shm_segment.h"

int main(void)
{
    printf("%zu %d %zu\n", offsetof(header_t, stripes), STRIPES, sizeof(stripe_t));
    return 0;
}
