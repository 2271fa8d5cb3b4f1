/* Opened with RTLD_DEEPBIND and bound lazily: its free is the one of the library it is linked with. */
#include <stdlib.h>

char *own_copy(const char *text);
int own_freed(void);

int go(void) { free(own_copy("text")); return own_freed(); }
