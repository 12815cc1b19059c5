{{/* The name of every object but the CRD. It carries the release, so that several releases fit into one cluster. */}}
{{- define "finetune-operator.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}
{{- else if contains .Chart.Name .Release.Name }}{{ .Release.Name }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Who chooses the user of the pods: kubernetes (they name it) or openshift (the platform assigns it). */}}
{{- define "finetune-operator.platform" -}}
{{- if ne .Values.platform "auto" }}{{ .Values.platform }}
{{- else if .Capabilities.APIVersions.Has "security.openshift.io/v1" }}openshift
{{- else }}kubernetes
{{- end }}
{{- end }}

{{- define "finetune-operator.labels" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- range $name, $value := .Values.commonLabels }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "finetune-operator.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "finetune-operator.fullname" .) }}
{{- end }}

{{/* What the schema cannot say. Everything that is wrong is said at once. */}}
{{- define "finetune-operator.check" -}}
{{- $problems := list }}
{{- if .Chart.IsRoot }}{{/* In a larger chart the other globals are those of its other parts. */}}
{{- range $name := keys (omit .Values.global "imageRegistry" "imagePullSecrets") | sortAlpha }}
{{- $problems = append $problems (printf "global.%s: is no value of this chart: it has global.imageRegistry and global.imagePullSecrets" $name) }}
{{- end }}
{{- end }}
{{- if not (or .Values.serviceAccount.create .Values.serviceAccount.name) }}
{{- $problems = append $problems "serviceAccount.name: must name a ServiceAccount, because serviceAccount.create is false" }}
{{- end }}
{{- range $name := keys .Values.podLabels | sortAlpha }}
{{- if hasKey (include "finetune-operator.selector" $ | fromYaml) $name }}
{{- $problems = append $problems (printf "podLabels.%s: the Deployment and the Service find their pods by this label: choose another" $name) }}
{{- end }}
{{- end }}
{{- range $name := keys .Values.commonLabels | sortAlpha }}
{{- if or (hasPrefix "app.kubernetes.io/" $name) (hasPrefix "helm.sh/" $name) }}
{{- $problems = append $problems (printf "commonLabels.%s: the chart sets this label: choose another" $name) }}
{{- end }}
{{- end }}
{{- $seen := dict }}
{{- range .Values.extraEnv }}
{{- if hasKey $seen .name }}
{{- $problems = append $problems (printf "extraEnv: %s is there twice" .name) }}
{{- end }}
{{- $_ := set $seen .name true }}
{{- if and .valueFrom (has .name (list "FINETUNE_OPERATOR_IMAGE" "FINETUNE_TRAINER_IMAGE" "FINETUNE_SERVICE_ACCOUNTS")) }}
{{- $problems = append $problems (printf "extraEnv: %s must have a value and no valueFrom, because the admission policies read it" .name) }}
{{- end }}
{{- end }}
{{- if $problems }}
{{- fail (printf "\n%s" (join "\n" $problems)) }}
{{- end }}
{{- end }}

{{/* Names of Secrets, given as names or as objects, as a list of objects. Takes a list; empty without any. */}}
{{- define "finetune-operator.secretNames" -}}
{{- $names := list }}
{{- range . }}
{{- $names = append $names (kindIs "map" . | ternary (get (kindIs "map" . | ternary . dict) "name") .) }}
{{- end }}
{{- join "," ($names | uniq) }}
{{- end }}

{{/* An address block without the exceptions that are of its kind. Takes (list $ CIDR SEPARATOR). */}}
{{- define "finetune-operator.ipBlock" -}}
{{- $separator := index . 2 }}
cidr: {{ index . 1 | quote }}
{{- $except := list }}
{{- range (index . 0).Values.networkPolicy.jobs.except }}
{{- if contains $separator . }}{{ $except = append $except . }}{{ end }}
{{- end }}
{{- with $except }}
except: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The variables that the chart sets. */}}
{{- define "finetune-operator.env" -}}
- name: FINETUNE_OPERATOR_IMAGE # preflight runs in it
  value: {{ include "finetune-operator.image" (list . .Values.images.operator) | quote }}
- name: FINETUNE_TRAINER_IMAGE
  value: {{ include "finetune-operator.image" (list . .Values.images.trainer) | quote }}
- name: FINETUNE_PLATFORM
  value: {{ include "finetune-operator.platform" . }}
- name: FINETUNE_IMAGE_PULL_POLICY
  value: {{ .Values.images.pullPolicy }}
{{- with include "finetune-operator.secretNames" .Values.jobs.imagePullSecrets }}
- name: FINETUNE_IMAGE_PULL_SECRETS
  value: {{ . | quote }}
{{- end }}
- name: FINETUNE_PROGRESS_URL
  value: http://{{ include "finetune-operator.fullname" . }}.{{ .Release.Namespace }}.svc:8080
{{- with .Values.watchNamespaces }}
- name: FINETUNE_WATCH_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
{{- if and .Values.watchNamespaces .Values.profiles.cluster }}
- name: FINETUNE_CLUSTER_PROFILES
  value: "true"
{{- end }}
- name: FINETUNE_SERVICE_ACCOUNTS
  value: {{ join "," .Values.jobs.serviceAccounts | quote }}
- name: FINETUNE_ALLOW_REMOTE_CODE
  value: {{ .Values.jobs.allowRemoteCode | quote }}
{{- with .Values.jobs.env }}
- name: FINETUNE_JOB_ENV
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.jobs.annotations }}
- name: FINETUNE_JOB_ANNOTATIONS
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.hub.endpoint }}
- name: FINETUNE_HUB_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.hub.caBundle }}
- name: FINETUNE_HUB_CA_BUNDLE
  value: {{ . | quote }}
{{- end }}
{{- with .Values.gpuPrices }}
- name: FINETUNE_GPU_PRICES
  {{- $prices := list }}
  {{- range $key, $price := . }}{{ $prices = append $prices (printf "%s=%s" $key $price) }}{{ end }}
  value: {{ join "," $prices | quote }}
{{- end }}
{{- if .Values.metrics.enabled }}
- name: FINETUNE_METRICS_PORT
  value: "8081"
{{- if .Values.metrics.perJob }}
- name: FINETUNE_METRICS_PER_JOB
  value: "true"
{{- end }}
{{- if .Values.metrics.tls.secretName }}
- name: FINETUNE_METRICS_TLS
  value: /etc/finetune/metrics-tls
{{- if .Values.metrics.tls.clientCertificates }}
- name: FINETUNE_METRICS_CLIENT_CERTIFICATES
  value: "true"
{{- end }}
{{- end }}
{{- end }}
- name: FINETUNE_LEASE_NAME
  value: {{ include "finetune-operator.fullname" . }}
- name: FINETUNE_LOG_LEVEL
  value: {{ .Values.logLevel }}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end }}

{{/* The variables of the chart, without those that extraEnv replaces, and extraEnv. */}}
{{- define "finetune-operator.allEnv" -}}
{{- $replaced := dict }}
{{- range .Values.extraEnv }}{{ $_ := set $replaced .name true }}{{ end }}
{{- $env := list }}
{{- range include "finetune-operator.env" . | fromYamlArray }}
{{- if not (hasKey $replaced .name) }}{{ $env = append $env . }}{{ end }}
{{- end }}
{{- toYaml (concat $env .Values.extraEnv) }}
{{- end }}

{{/* What the operator's pod and that of `helm test` have in common, below spec. */}}
{{- define "finetune-operator.podSpec" -}}
{{- with include "finetune-operator.secretNames" (concat .Values.images.pullSecrets (.Values.global.imagePullSecrets | default list)) }}
imagePullSecrets:
  {{- range splitList "," . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- if ne (include "finetune-operator.platform" .) "openshift" }}
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "finetune-operator.selector" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "finetune-operator.crdAnnotations" -}}
{{- $keep := ternary (dict "helm.sh/resource-policy" "keep") dict .Values.crds.keep }}
{{- with merge $keep .Values.crds.annotations }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* A full image name. Takes (list $ .Values.images.NAME). */}}
{{- define "finetune-operator.image" -}}
{{- $root := index . 0 }}
{{- $image := index . 1 }}
{{- $registry := coalesce $root.Values.images.registry $root.Values.global.imageRegistry $image.registry | default "" }}
{{- with $registry | trimSuffix "/" }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* What the operator may do in a namespace that it serves. No verb on Secrets, but it can create Jobs that mount them. */}}
{{- define "finetune-operator.rules" -}}
- apiGroups: [finetune.dev]
  resources: [finetunejobs, finetuneprofiles]
  verbs: [get, list, watch]
- apiGroups: [finetune.dev]
  resources: [finetunejobs/status]
  verbs: [patch]
# To set blockOwnerDeletion where OwnerReferencesPermissionEnforcement is on.
- apiGroups: [finetune.dev]
  resources: [finetunejobs/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [list, create, patch]
# Why a job waits in a queue of Kueue, and its place there. Without Kueue these name nothing.
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
- apiGroups: [visibility.kueue.x-k8s.io]
  resources: [localqueues/pendingworkloads]
  verbs: [get]
{{- end }}

{{- define "finetune-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "finetune-operator.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* How a monitor scrapes. Takes (list .Values.metrics MONITOR). Metrics about jobs have the job's namespace as a label. */}}
{{- define "finetune-operator.scrape" -}}
{{- $metrics := index . 0 }}
{{- $monitor := index . 1 -}}
port: metrics
interval: {{ $monitor.interval }}
honorLabels: true
{{- if $metrics.tls.secretName }}
scheme: https
{{- with $monitor.tlsConfig }}
tlsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* What makes an object a part of `helm test`. Takes the weight: objects with a lower one are made first. */}}
{{- define "finetune-operator.testHook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
