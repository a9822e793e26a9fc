/* An NVML without a GPU, for the real nvidia-ml-py: a node of the shape that FAKE_NVML names.
   Compile: cc -shared -fPIC -o libnvidia-ml.so.1 nvml.c */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_LOADED = 9, LOST = 15, MISMATCH = 18 };
typedef void *Device;
typedef unsigned long long u64;
typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;

static int is(const char *shape) {
  const char *given = getenv("FAKE_NVML");
  return given && strstr(given, shape) != NULL;
}
static unsigned long number(Device d) { return (unsigned long)d - 1; }
/* What is wrong is wrong with the first GPU alone. */
static int bad(Device d, const char *shape) { return number(d) == 0 && is(shape); }
static int text(char *to, unsigned length, const char *from) { snprintf(to, length, "%s", from); return OK; }

int nvmlInitWithFlags(unsigned flags) {
  if (is("not-loaded")) return NOT_LOADED;
  if (is("no-permission")) return NO_PERMISSION;
  return is("mismatch") ? MISMATCH : OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int result) { return result == LOST ? "GPU is lost" : "an error of the stub"; }
int nvmlSystemGetDriverVersion(char *to, unsigned length) { return text(to, length, is("old-driver") ? "470.82.01" : "580.65.06"); }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = is("old-driver") ? 11040 : 13000; return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = is("none") ? 0 : 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, Device *d) {
  if (i == 0 && is("lost")) return LOST;
  *d = (Device)(unsigned long)(i + 1);
  return OK;
}
int nvmlDeviceGetUUID(Device d, char *to, unsigned length) { snprintf(to, length, "GPU-0000000%lu-fake", number(d)); return OK; }
int nvmlDeviceGetName(Device d, char *to, unsigned length) { return text(to, length, is("old-gpu") ? "Tesla K80" : "NVIDIA H100"); }
int nvmlDeviceGetCudaComputeCapability(Device d, int *major, int *minor) { *major = is("old-gpu") ? 3 : 9; *minor = is("old-gpu") ? 7 : 0; return OK; }
int nvmlDeviceGetMemoryInfo(Device d, Memory *m) {
  if (is("unified")) return NOT_SUPPORTED;
  m->total = 80000000000ull;
  m->free = bad(d, "full") ? 900000000ull : 79000000000ull;
  m->used = m->total - m->free;
  return OK;
}
int nvmlDeviceGetMigMode(Device d, unsigned *now, unsigned *pending) {
  if (is("plain")) return NOT_SUPPORTED;
  *now = bad(d, "mig");
  *pending = bad(d, "mig") || bad(d, "pending");
  return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(Device d, unsigned *count) { *count = 7; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device d, unsigned i, Device *instance) {
  if (is("mig-empty") || i > 1) return 6; /* not found */
  *instance = (Device)(unsigned long)(100 + i);
  return OK;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(Device d, u64 *reasons) {
  *reasons = bad(d, "hot") ? 0x60 : bad(d, "weak-power") ? 0x80 : 0x1; /* idle */
  return OK;
}
int nvmlDeviceGetClockInfo(Device d, int type, unsigned *mhz) { *mhz = 345; return OK; }
int nvmlDeviceGetMaxClockInfo(Device d, int type, unsigned *mhz) { *mhz = 1980; return OK; }
int nvmlDeviceGetComputeMode(Device d, int *mode) { *mode = bad(d, "exclusive") ? 3 : 0; return OK; }
int nvmlDeviceGetPersistenceMode(Device d, int *mode) { *mode = !bad(d, "not-persistent"); return OK; }
int nvmlDeviceGetRemappedRows(Device d, unsigned *correctable, unsigned *uncorrectable, unsigned *pending, unsigned *failed) {
  *correctable = *uncorrectable = 1;
  *pending = bad(d, "broken-rows");
  *failed = 0;
  return OK;
}
int nvmlDeviceGetDecoderUtilization(Device d, unsigned *used, unsigned *period) { *used = *period = 0; return is("no-decoder") ? NOT_SUPPORTED : OK; }
int nvmlDeviceGetJpgUtilization(Device d, unsigned *used, unsigned *period) { *used = *period = 0; return is("no-decoder") ? NOT_SUPPORTED : OK; }
int nvmlDeviceGetCurrPcieLinkGeneration(Device d, unsigned *value) { *value = 1; return OK; } /* it is idle */
int nvmlDeviceGetMaxPcieLinkGeneration(Device d, unsigned *value) { *value = 5; return OK; }
int nvmlDeviceGetCurrPcieLinkWidth(Device d, unsigned *value) { *value = bad(d, "narrow") ? 4 : 16; return OK; }
int nvmlDeviceGetMaxPcieLinkWidth(Device d, unsigned *value) { *value = 16; return OK; }
int nvmlDeviceGetTemperature(Device d, int sensor, unsigned *degrees) { *degrees = bad(d, "hot") ? 92 : 41; return OK; }
