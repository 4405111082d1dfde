/* The release that is being built: the version comes from the Makefile, what it changed from here. */
#ifndef RELEASE_H
#define RELEASE_H

#if !defined(FW_NAME) || !defined(FW_MAJOR) || !defined(FW_MINOR) || !defined(FW_REVISION)
#error "FW_NAME, FW_MAJOR, FW_MINOR and FW_REVISION must be defined"
#endif

#define FW_TEXT_(x) #x
#define FW_TEXT(x) FW_TEXT_(x)
#define FW_VERSION FW_TEXT(FW_MAJOR) "." FW_TEXT(FW_MINOR) "." FW_TEXT(FW_REVISION)
#define FW_IDENTITY FW_NAME " " FW_VERSION

#define FW_AT_LEAST(major, minor) (FW_MAJOR > (major) || (FW_MAJOR == (major) && FW_MINOR >= (minor)))

/* BMU 1.1: open-circuit voltage is interpolated over temperature (1.0 took the nearest curve). */
#define SOC_INTERPOLATES_TEMPERATURE FW_AT_LEAST(1, 1)

/* BMU 1.1: the time since high voltage is off stays at its largest value (1.0 wrapped to zero after 409.6 s). */
#define OFF_DURATION_SATURATES FW_AT_LEAST(1, 1)

/* Communications gateway 1.1: a register whose sender has fallen silent reads as invalid (1.0 kept the last value). */
#define REGISTERS_EXPIRE FW_AT_LEAST(1, 1)

#endif
