{{- define "fingerpost.name" -}}
{{- if contains "fingerpost" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-fingerpost" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "fingerpost.selector" -}}
app.kubernetes.io/name: fingerpost
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
fingerpost/pool: {{ . }}
{{- end }}
{{- end }}

{{- define "fingerpost.labels" -}}
{{ include "fingerpost.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "fingerpost.image" -}}
{{- $repository := .image.repository | default .root.Values.image.repository -}}
{{- if .image.digest }}{{ $repository }}@{{ .image.digest }}{{ else }}{{ $repository }}:{{ .image.tag }}{{ end }}
{{- end }}

{{- define "fingerpost.account" -}}
{{- index .root.Values.serviceAccounts .component | default (printf "%s-%s" (include "fingerpost.name" .root) .component) }}
{{- end }}

{{- /* Whether a registry is this cluster's own. */ -}}
{{- define "fingerpost.inKubernetes" -}}
{{- range .Values.registries }}{{ if hasPrefix "kubernetes://" . }}yes{{ end }}{{ end }}
{{- end }}

{{- /* The Secret with the proxies' certificate. */ -}}
{{- define "fingerpost.proxiesSecret" -}}
{{- if .Values.tls.certManager.enabled }}{{ include "fingerpost.name" . }}-proxy-tls{{ else }}{{ .Values.tls.proxiesSecret }}{{ end }}
{{- end }}

{{- /* The names of all models that a pool names. */ -}}
{{- define "fingerpost.models" -}}
{{- $found := list }}
{{- range $name, $pool := .Values.workers }}{{ if $pool }}{{ $found = concat $found ($pool.only | default $.Values.workerDefaults.only) }}{{ end }}{{ end }}
{{- $found | uniq | sortAlpha | join "," }}
{{- end }}

{{- /* Whether a value of a pool of workers is true: root, option. */ -}}
{{- define "fingerpost.anyPool" -}}
{{- $option := .option }}
{{- $default := index .root.Values.workerDefaults $option }}
{{- range $name, $pool := .root.Values.workers }}{{ if not (kindIs "invalid" $pool) }}{{ if dig $option $default $pool }}yes{{ end }}{{ end }}{{ end }}
{{- end }}

{{- /* Refuses what several front ends of a worker cannot do: key, pool. */ -}}
{{- define "fingerpost.checkFrontEnds" -}}
{{- $key := .key }}
{{- $count := int .pool.frontEnds }}
{{- range list "grpc" "zmq" }}
{{- if index $.pool . }}{{ fail (printf "%s.%s is true, and %s.frontEnds is %d: it needs one process, so leave one of them out" $key . $key $count) }}{{ end }}
{{- end }}
{{- range .pool.extraArgs }}
{{- with regexFind "^--(grpc-port|zmq-port|uds|shared-memory|admin-token-file|callers)(=|$)" . }}
{{- fail (printf "%s.extraArgs has %s, and %s.frontEnds is %d: it needs one process, so leave one of them out" $key (trimSuffix "=" .) $key $count) }}
{{- end }}
{{- end }}
{{- range .pool.extraEnv }}
{{- if has .name (list "FINGERPOST_ADMIN_TOKEN" "FINGERPOST_ADMIN_TOKEN_FILE" "FINGERPOST_CALLERS") }}
{{- fail (printf "%s.extraEnv has %s, and %s.frontEnds is %d: the admin API needs one process, so leave one of them out" $key .name $key $count) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* The seconds of a duration such as 1h30m. */ -}}
{{- define "fingerpost.seconds" -}}
{{- $seconds := 0 }}
{{- range regexFindAll "[0-9]+[hms]" . -1 }}
{{- $seconds = add $seconds (mul (int64 (regexFind "[0-9]+" .)) (index (dict "h" 3600 "m" 60 "s" 1) (regexFind "[hms]" .))) }}
{{- end }}
{{- $seconds }}
{{- end }}

{{- /* Refuses ports in `extraArgs` that are used already, and variables that are set twice: key, values, ports (by what opens them). */ -}}
{{- define "fingerpost.check" -}}
{{- $option := "" }}
{{- $ports := .ports }}
{{- range .values.extraArgs }}
{{- $port := "" }}
{{- if regexMatch "^--[a-z-]*port=" . }}{{ $option = regexFind "^--[a-z-]*port" . }}{{ $port = regexReplaceAll "^[^=]*=" . "" }}
{{- else if regexMatch "^--[a-z-]*port$" . }}{{ $option = . }}
{{- else if $option }}{{ $port = . }}
{{- end }}
{{- if $port }}
{{- if or (not (regexMatch "^[0-9]+$" $port)) (gt (int64 $port) 65535) (lt (int64 $port) 1) }}
{{- fail (printf "%s.extraArgs has %s %s: give a port from 1 to 65535, which others can know" $.key $option $port) }}
{{- end }}
{{- with get $ports $port }}{{ fail (printf "%s.extraArgs has %s %s, which is the port of %s: give another one" $.key $option $port .) }}{{ end }}
{{- $ports = set $ports $port $option }}
{{- $option = "" }}
{{- end }}
{{- end }}
{{- $seen := dict }}
{{- range .values.extraEnv }}
{{- if hasKey $seen .name }}{{ fail (printf "%s.extraEnv has %s twice: leave one of them out" $.key .name) }}{{ end }}
{{- $_ := set $seen .name "yes" }}
{{- end }}
{{- /* Kubernetes refuses requests above limits, and devices whose two numbers differ, but only after the release is made. */ -}}
{{- $limits := .values.resources.limits | default dict }}
{{- range $name, $asked := .values.resources.requests }}
{{- $limit := get $limits $name }}
{{- if and (not (kindIs "invalid" $limit)) (ne (toString $limit) "") }}
{{- if gt (include "fingerpost.amount" $asked | float64) (include "fingerpost.amount" $limit | float64) }}
{{- fail (printf "%s.resources.requests.%s is %v, and %s.resources.limits.%s is %v: a request is at most the limit" $.key $name $asked $.key $name $limit) }}
{{- end }}
{{- end }}
{{- if and (contains "/" $name) (ne (toString $limit) (toString $asked)) }}
{{- fail (printf "%s.resources.requests has %s: give it as the same number in %s.resources.limits, as devices are not shared" $.key $name $.key) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A quantity of Kubernetes as a number. */ -}}
{{- define "fingerpost.amount" -}}
{{- $units := dict "" 1.0 "m" 0.001 "k" 1e3 "Ki" 1024.0 "M" 1e6 "Mi" 1048576.0 "G" 1e9 "Gi" 1073741824.0 "T" 1e12 "Ti" 1099511627776.0 "P" 1e15 "Pi" 1125899906842624.0 "E" 1e18 "Ei" 1152921504606846976.0 }}
{{- $unit := "" }}
{{- if kindIs "string" . }}{{ $unit = regexFind "[a-zA-Z]*$" . }}{{ end }}
{{- mulf (float64 (toString . | trimSuffix $unit)) (index $units $unit) }}
{{- end }}

{{- define "fingerpost.spread" -}}
{{- range .spreadOver }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "fingerpost.selector" $.labels | nindent 6 }}
{{- end }}
{{- end }}

{{- define "fingerpost.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "fingerpost.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "fingerpost.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- /* Options that workers and proxies share. */ -}}
{{- define "fingerpost.commonArgs" -}}
{{- range .Values.registries }}
- --registry
- {{ . | quote }}
{{- end }}
- --host
- 0.0.0.0
- --lease
- {{ .Values.lease | quote }}
- --log-format
- {{ .Values.logFormat }}
{{- if .Values.registryToken.secret }}
- --registry-token-file
- /etc/fingerpost/registry-token/{{ .Values.registryToken.key }}
{{- end }}
{{- if .Values.registryCa.secret }}
- --registry-ca-file
- /etc/fingerpost/registry-ca/{{ .Values.registryCa.key }}
{{- end }}
{{- if .Values.tls.enabled }}
- --tls-cert
- /etc/fingerpost/tls/tls.crt
- --tls-key
- /etc/fingerpost/tls/tls.key
{{- if .Values.tls.mutual }}
- --tls-client-ca
- /etc/fingerpost/tls/ca.crt
{{- end }}
{{- else }}
- --insecure
{{- end }}
{{- end }}

{{- /* One Secret as files; mode 0440 and fsGroup, as the process is not root. */ -}}
{{- define "fingerpost.mount" -}}
- name: {{ .name }}
  mountPath: /etc/fingerpost/{{ .name }}
  readOnly: true
{{- end }}
{{- define "fingerpost.secretVolume" -}}
- name: {{ .name }}
  secret: {secretName: {{ .secret }}, defaultMode: 0440}
{{- end }}

{{- /* A request to the container's own port; exec where the kubelet would need a client certificate. */ -}}
{{- define "fingerpost.probe" -}}
{{- if and .root.Values.tls.enabled .root.Values.tls.mutual }}
exec:
  command:
  - python3
  - -c
  - |
    import http.client, ssl
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    tls.load_cert_chain("/etc/fingerpost/tls/tls.crt", "/etc/fingerpost/tls/tls.key")
    asked = http.client.HTTPSConnection("127.0.0.1", {{ .port }}, timeout=4, context=tls)
    asked.request("GET", "{{ .path }}")
    raise SystemExit(asked.getresponse().status != 200)
{{- else }}
httpGet:
  path: {{ .path }}
  port: http
  {{- if .root.Values.tls.enabled }}
  scheme: HTTPS
  {{- end }}
{{- end }}
timeoutSeconds: 5
{{- end }}
