package gateway_test
import ("testing";"strings";"net/http";"fmt";"github.com/ai-cherry/morello/internal/config")
func TestProbe(t *testing.T){
	url, _ := serve(t, config.Config{}, getOf(tenantGet))
	for _, n := range []int{8<<20, 8<<20-30, 8<<20-60} {
	got := ask(t, http.MethodPost, url+"/v1/acme/cache/get", `{"key":"k"}`+strings.Repeat(" ", n-11))
	fmt.Println(n, got.status, got.body)
	}
}
