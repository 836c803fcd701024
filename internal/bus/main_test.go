package bus_test

import (
	"testing"

	"github.com/ai-cherry/morello/internal/devstack/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m, nil) }
