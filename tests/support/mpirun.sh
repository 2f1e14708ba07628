#!/bin/sh
# Run a program as N ranks on this host, as tests and CI need it. Usage: mpirun.sh N PROGRAM [ARG..]
ranks=$1
shift
# --bind-to none: with -np 1 and 2 Open MPI would pin each rank to one core.
OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 exec mpirun -np "$ranks" --bind-to none \
    --oversubscribe --mca mpi_yield_when_idle 1 --mca btl_vader_single_copy_mechanism none "$@"
