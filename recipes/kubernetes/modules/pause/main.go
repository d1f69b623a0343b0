// Pause holds a pod's namespaces open and does nothing else.
//
// It is process 1 of the pod: with SIGCHLD ignored the kernel reaps whatever is
// left to it, and it ends at once when it is asked to.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signal.Ignore(syscall.SIGCHLD)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
