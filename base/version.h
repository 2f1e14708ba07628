/* The release this was built from. Coordinator and workers must be of the same one. */
#ifndef BASE_VERSION_H
#define BASE_VERSION_H

const char *tca_version(void); /* "0.1.0" */

#endif
