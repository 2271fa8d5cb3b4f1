/* Opens a plugin by its bare name: the loader looks at this library's own search path. */
#include <dlfcn.h>
#include <stdlib.h>

const char *go(void) {
    void *plugin = dlopen("libplugin.so", RTLD_NOW);
    if (!plugin) return dlerror();
    const char *(*which)(void) = (const char *(*)(void))dlsym(plugin, "which");
    void *block = malloc(70000001);
    const char *answer = which();
    free(block);
    return answer;
}
