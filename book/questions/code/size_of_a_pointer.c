#include <stdlib.h>
#include <string.h>

struct session {
    char user[32];
    int requests;
    int errors;
};

struct session *new_session(void)
{
    struct session *session = malloc(sizeof *session);
    if (session == NULL)
        return NULL;
    memset(session, 0, sizeof session);
    return session;
}
