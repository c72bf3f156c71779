package configfile

import "os"

// Forget takes variables out of the environment of this process, once they have
// been read: processes that it starts do not get them. What the kernel shows of
// them (/proc/PID/environ) is overwritten where that is possible, which is on
// Linux; copies in the process's own memory stay.
func Forget(names ...string) {
	for _, name := range names {
		value, set := os.LookupEnv(name)
		if !set {
			continue
		}
		_ = os.Unsetenv(name) // fails for names that no variable can have
		if value != "" {
			overwrite(name + "=" + value)
		}
	}
}
