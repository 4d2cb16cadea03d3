// kube-reference is Kubernetes' own API server for custom resources, standing alone over etcd: what the suite in tests/api and the
// differential run compare with. It asks nobody who they are and has no core kinds, so it listens on loopback only.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"

	"go.opentelemetry.io/otel/trace/noop"
	discovery "k8s.io/api/apidiscovery/v2"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	"k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	endpointsopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	etcd := flag.String("etcd", "http://127.0.0.1:2379", "URL of etcd")
	port := flag.Int("port", 7443, "port on loopback to serve HTTPS on")
	certs := flag.String("certs", "", "folder for the self-signed certificate; apiserver.crt in it is what clients trust")
	flag.Parse()
	if err := run(*etcd, *port, *certs); err != nil {
		fmt.Fprintln(os.Stderr, "kube-reference:", err)
		os.Exit(1)
	}
}

func run(etcd string, port int, certs string) error {
	opts := options.NewCustomResourceDefinitionsServerOptions(os.Stdout, os.Stderr)
	rec := opts.RecommendedOptions
	rec.Etcd.StorageConfig.Transport.ServerList = []string{etcd}
	rec.SecureServing.BindAddress = net.IPv4(127, 0, 0, 1)
	rec.SecureServing.BindPort = port
	rec.SecureServing.ServerCert.CertDirectory = certs
	// What a whole cluster would be asked for: users, rights, core objects.
	rec.Authentication, rec.Authorization, rec.CoreAPI, rec.Admission = nil, nil, nil, nil
	rec.Features.EnablePriorityAndFairness = false
	if err := opts.Complete(); err != nil {
		return err
	}
	if err := rec.SecureServing.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{net.IPv4(127, 0, 0, 1)}); err != nil {
		return err
	}

	generic := genericapiserver.NewRecommendedConfig(apiserver.Codecs)
	if err := opts.ServerRunOptions.ApplyTo(&generic.Config); err != nil {
		return err
	}
	if err := rec.ApplyTo(generic); err != nil {
		return err
	}
	if err := opts.APIEnablement.ApplyTo(&generic.Config, apiserver.DefaultAPIResourceConfigSource(), apiserver.Scheme); err != nil {
		return err
	}
	namer := endpointsopenapi.NewDefinitionNamer(apiserver.Scheme, scheme.Scheme)
	generic.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openapi.GetOpenAPIDefinitions, namer)
	generic.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	roots := &roots{core: aggregated.NewResourceManager("api")}
	generic.BuildHandlerChainFunc = func(inner http.Handler, c *genericapiserver.Config) http.Handler {
		return roots.before(genericapiserver.DefaultBuildHandlerChain(inner, c))
	}

	config := &apiserver.Config{
		GenericConfig: generic,
		ExtraConfig: apiserver.ExtraConfig{
			CRDRESTOptionsGetter: options.NewCRDRESTOptionsGetter(*rec.Etcd, generic.ResourceTransformers, generic.StorageObjectCountTracker),
			ServiceResolver:      noServices{},
			AuthResolverWrapper: webhook.NewDefaultAuthenticationInfoResolverWrapper(
				nil, nil, generic.LoopbackClientConfig, noop.NewTracerProvider()),
		},
	}
	server, err := config.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return err
	}
	roots.groups = server.GenericAPIServer.AggregatedDiscoveryGroupManager
	return server.GenericAPIServer.PrepareRun().RunWithContext(genericapiserver.SetupSignalContext())
}

// noServices finds no webhook: the definitions of the suite have none.
type noServices struct{}

func (noServices) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	return nil, fmt.Errorf("service %s/%s: services are not served here", namespace, name)
}

// roots answers /api and /apis, which in a whole cluster other parts do.
type roots struct {
	core   aggregated.ResourceManager
	groups aggregated.ResourceManager
}

func (r *roots) before(next http.Handler) http.Handler {
	noCore := metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{}}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch req.URL.Path {
		case "/api":
			plain := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { write(w, noCore) })
			aggregated.WrapAggregatedDiscoveryToHandler(plain, r.core, nil).ServeHTTP(w, req)
		case "/apis":
			aggregated.WrapAggregatedDiscoveryToHandler(http.HandlerFunc(r.plainGroups), r.groups, nil).ServeHTTP(w, req)
		default:
			next.ServeHTTP(w, req)
		}
	})
}

// plainGroups says in the old form what the aggregated document says.
func (r *roots) plainGroups(w http.ResponseWriter, _ *http.Request) {
	ask := httptest.NewRequest(http.MethodGet, "/apis", nil)
	ask.Header.Set("Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
	answer := httptest.NewRecorder()
	r.groups.ServeHTTP(answer, ask)
	var known discovery.APIGroupDiscoveryList
	if err := json.Unmarshal(answer.Body.Bytes(), &known); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, item := range known.Items {
		group := metav1.APIGroup{Name: item.Name}
		for _, version := range item.Versions {
			group.Versions = append(group.Versions, metav1.GroupVersionForDiscovery{
				GroupVersion: item.Name + "/" + version.Version, Version: version.Version})
		}
		if len(group.Versions) > 0 {
			group.PreferredVersion = group.Versions[0]
		}
		list.Groups = append(list.Groups, group)
	}
	write(w, list)
}

func write(w http.ResponseWriter, object any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(object); err != nil {
		fmt.Fprintln(os.Stderr, "kube-reference: answering:", err)
	}
}
